FROM base
LABEL only=metadata
