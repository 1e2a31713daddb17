FROM ctx
COPY a /a
