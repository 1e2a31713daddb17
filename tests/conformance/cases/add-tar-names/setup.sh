rm -rf in; mkdir in
echo 1 > in/f; touch -d '2011-01-01 00:00:00' in/f in; tar cf a.txt in; tar czf b.zip in; tar cJf c in; tar cjf d.tar in; rm -r in
