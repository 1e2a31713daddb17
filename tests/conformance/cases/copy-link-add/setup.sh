mkdir in; echo 1 > in/f; touch -d '2011-01-01 00:00:00' in/f in; tar czf t.tar.gz in; rm -r in
