-- Appends something about the channel itself.
-- ARGV  9 the event
record('told', nil, { told = ARGV[9] })
settle()
return { 'ok', news() }
