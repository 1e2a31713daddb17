mkdir in; head -c 100000 /dev/urandom > in/f; tar czf w.tar.gz in; head -c 50000 w.tar.gz > t.tar.gz; rm -r in w.tar.gz
