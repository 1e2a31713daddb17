rm -rf in; mkdir in
n=$(printf 'x%.0s' $(seq 200)); mkdir -p in/$n; echo 1 > in/$n/$n; touch -d '2011-01-01 00:00:00' in/$n/$n in/$n in; tar --format=pax -cf p.tar in; tar --format=gnu -cf g.tar in; rm -r in
