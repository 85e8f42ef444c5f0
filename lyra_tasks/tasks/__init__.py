"""The command line: Invoke tasks that collect, plan, run and print. Imports every other package, lazily."""
