mkdir in
echo 1 > in/one
touch -d '2011-01-01' in/one in
tar cJf t.tar.xz in
tar cjf t.tar.bz2 in
rm -r in
