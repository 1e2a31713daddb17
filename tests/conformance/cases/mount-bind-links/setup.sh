ln -s f d/l; ln -s ../x d/out; touch -h -d '2011-01-01 00:00:00' d/l d/out d
