rm -rf in; mkdir in
echo 1 > in/f; chmod 4711 in/f; chown 70000:80000 in/f; mkdir in/d; chmod 2770 in/d; chown 5:6 in/d; setfattr -n user.k -v v in/f; touch -d '2011-01-01 00:00:00.5' in/f in/d in; tar --xattrs --format=pax -cf t.tar in; rm -r in
