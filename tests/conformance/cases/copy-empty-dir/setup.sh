mkdir e
touch -d '2021-02-03 04:05:06' e .
