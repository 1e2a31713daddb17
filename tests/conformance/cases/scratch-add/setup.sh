mkdir -p r/etc r/bin; echo 1 > r/etc/f; ln -s ../etc/f r/bin/l; touch -h -d '2011-01-01 00:00:00' r/etc/f r/bin/l r/etc r/bin r; tar cf r.tar -C r etc bin; rm -r r
