mkdir in
echo 1 > in/one
ln -s one in/link
chmod 0640 in/one
chown -R 12:34 in
touch -h -d '2011-01-01' in/one in/link in
tar cf t.tar in
tar czf t.tar.gz in
rm -r in
