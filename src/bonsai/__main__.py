"""`python -m bonsai` is `bonsai`."""

from bonsai.pipeline.cli.main import main

if __name__ == "__main__":
    main()
