chmod 0600 a.txt
chmod 4755 b.txt
chmod 0750 dir
chown 1234:5678 dir/one
