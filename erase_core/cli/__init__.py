"""The commands of ``eraseanything``, one module each.

A command has ``HELP``, ``DESCRIPTION``, ``EXAMPLES``, ``add_arguments(parser)`` and ``run(args)``,
which returns the exit code. Heavy imports stand inside the functions, so that ``--help`` is quick.
"""
