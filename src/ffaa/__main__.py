"""`python -m ffaa`."""

from ffaa.cli.main import main

raise SystemExit(main())
