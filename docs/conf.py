"""The site of the documentation: ``make docs`` builds it; every warning is an error."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

from gansuite import __version__  # noqa: E402

project = "gansuite"
author = "gansuite maintainers"
copyright = "gansuite maintainers"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "site_pages"]
exclude_patterns = ["_ext"]
myst_enable_extensions = ["strikethrough"]
myst_heading_anchors = 3
smartquotes = False  # a message and a value are shown as they are
highlight_language = "none"  # of what does not say
default_role = "py:obj"  # `Settings` in a docstring is a link where there is such a name
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_inherit_docstrings = True
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = "gansuite"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#7a3e00", "color-brand-content": "#7a3e00"},
    "dark_css_variables": {"color-brand-primary": "#f0a860", "color-brand-content": "#f0a860"},
}
