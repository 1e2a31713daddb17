rm -rf in; mkdir in
echo 1 > in/f; touch -d '2011-01-01 00:00:00' in/f in; tar cf - in | zstd -q > t; rm -r in
