"""The checks of `build test`, from plan to evidence: may import lab, rules, engine and config, but no other step."""
