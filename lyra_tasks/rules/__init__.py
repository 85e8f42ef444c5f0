"""Rules about images, containers and projects, and deviations from them. Imports the engine and below, no step."""
