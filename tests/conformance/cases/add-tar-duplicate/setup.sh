rm -rf in; mkdir in
echo first > in/f; touch -d '2011-01-01 00:00:00' in/f in; tar cf t.tar in; echo second > in/f; touch -d '2012-01-01 00:00:00' in/f; tar rf t.tar in/f; rm -r in
