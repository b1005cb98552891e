-- Forgets a leased job, because it ended or because its row was won by another. Only with the lease's own token.
local holder = get_holder(args.id)
if not holder or holder.token ~= args.token then return 0 end
local job = get_job(args.id)
unlease(args.id, job)
call('HDEL', KEY.job, args.id)
refresh(job.user)
wake()
return 1
