import asyncio, sys, traceback, faulthandler
async def test_a(settings, service):
    from jobs.worker import work
    stopping = asyncio.Event()
    t = asyncio.create_task(work(settings, stopping))
    await asyncio.sleep(1)
    stopping.set()
    await asyncio.wait([t], timeout=6)
    with open("/tmp/thr_dbg.txt","w") as f:
        print(t, file=f)
        for x in asyncio.all_tasks():
            x.print_stack(file=f)
        if t.done() and t.exception(): traceback.print_exception(t.exception(), file=f)
        import gc
        for o in gc.get_objects():
            if type(o).__name__ in ("TCPTransport",) and not o.is_closing():
                print(o, o.get_extra_info("peername"), gc.get_referrers(o.get_protocol())[:1], file=f)
                p=o.get_protocol(); print(type(p), getattr(p,"_stream_reader",None), file=f)
