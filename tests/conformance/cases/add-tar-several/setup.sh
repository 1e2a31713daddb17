rm -rf in; mkdir in
echo 1 > in/f; echo 2 > in/g; touch -d '2011-01-01 00:00:00' in/f in/g in; tar cf 1.tar in/f; tar cf 2.tar in/g; rm -r in
