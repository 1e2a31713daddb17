rm -rf in; mkdir in
mkdir d; echo 1 > in/f; tar cf d/t.tar in; touch -d '2011-01-01 00:00:00' d/t.tar d; rm -r in
