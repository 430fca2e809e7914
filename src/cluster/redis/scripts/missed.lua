local entries = missed()
if entries then return { 'entries', epoch, offset, entries } end
return { 'short', epoch or '', offset }
