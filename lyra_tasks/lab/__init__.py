"""test: the services in isolated, limited, disposable containers, and the checks against them."""
