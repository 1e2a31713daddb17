rm -rf in; mkdir in
truncate -s 1M in/f; echo end >> in/f; touch -d '2011-01-01 00:00:00' in/f in; tar -S --format=pax -cf t.tar in; rm -r in
