rm -rf in; mkdir in
echo 1 > in/f; mkdir in/d in/l in/x; echo 2 > in/d/new; echo 3 > in/l/g; touch -d '2011-01-01 00:00:00' in/f in/d/new in/l/g in/d in/l in/x in; tar cf t.tar in; rm -r in
