mkfifo fifo; mknod null c 1 3; chmod 0 a.txt; chmod 6711 b.md; chmod 1700 doc; touch -d '2011-01-01 00:00:00' fifo null doc
