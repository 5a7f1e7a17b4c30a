.DEFAULT_GOAL := help
.PHONY: help test long lint docs wheel

help: ## what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "%-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
test: ## the default tier
	pytest -n auto
long: ## the long tier
	pytest -n auto -m long
lint: ## ruff, format, types
	ruff check && ruff format --check && mypy
docs: ## the site, into site/
	mkdocs build --strict
wheel: ## wheel and sdist, checked
	python -m build && twine check dist/*
