return { 'ok', missed(ARGV[7], tonumber(ARGV[8])) }
