rm -rf in; mkdir in
echo 1 > in/f; chown 70:80 in/f; touch -d '2011-01-01 00:00:00' in/f in; tar cf t.tar in; rm -r in
