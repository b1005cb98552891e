-- Lets delayed jobs whose time has come into the line. Answers how many, and when the next one is due.
local promoted, next_due = promote(clock())
return cjson.encode({promoted = promoted, next_due = next_due})
