"""Status, explanations, history and diagnosis of a project; changes nothing. Imports rules and everything below."""
