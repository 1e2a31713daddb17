rm -rf in; mkdir in
mkdir in/abs; echo 1 > in/abs/f; touch -d '2011-01-01 00:00:00' in/abs/f in/abs in; tar cPf t.tar --transform 's#^in#/#' in/abs; tar cf u.tar -C in .; rm -r in
