"""Methods of my own; pyproject.toml names them for gansuite."""
