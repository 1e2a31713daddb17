rm -rf in; mkdir in
mkdir -p in/a/b; echo 1 > in/a/b/f; touch -d '2011-01-01 00:00:00' in/a/b/f; tar cf t.tar in/a/b/f; rm -r in
