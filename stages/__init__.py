"""What is done to rows: one folder a stage, pure given what it is handed. Knows no Ray, CLI or manifest files."""
