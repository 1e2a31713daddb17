echo 1 | gzip -n > a.gz; echo 2 | xz > b.xz; echo 3 | bzip2 > c.bz2; touch -d '2011-01-01 00:00:00' a.gz b.xz c.bz2
