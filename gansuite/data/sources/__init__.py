"""Sources: where pictures come from, as domains of pictures with splits. One file each.

The keyword-only signature of a source's ``__init__`` is the schema of ``data:`` for its name;
:mod:`gansuite.data.catalogue` has the names.
"""
