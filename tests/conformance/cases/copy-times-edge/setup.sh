touch -d '1960-01-01 00:00:00 UTC' old; touch -d '2011-01-01 00:00:00.123456789 UTC' nano; touch -d '2100-01-01 00:00:00 UTC' far; touch -d '1999-12-31 23:59:59.999999999 UTC' d
