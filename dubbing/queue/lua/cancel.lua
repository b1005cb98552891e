-- Removes a waiting job, or marks the lease of a running one so that its next renewal says so.
local job = get_job(args.id)
if not job then return 'unknown' end
local holder = get_holder(args.id)
wake()
if holder then
  holder.cancel = true
  call('HSET', KEY.holder, args.id, cjson.encode(holder))
  return 'signalled'
end
out_of_line(args.id, job)
call('HDEL', KEY.job, args.id)
refresh(job.user)
return 'removed'
