rm -rf in; mkdir in
touch in/.wh.gone; echo 1 > in/f; touch -d '2011-01-01 00:00:00' in/.wh.gone in/f in; tar cf t.tar in; rm -r in
