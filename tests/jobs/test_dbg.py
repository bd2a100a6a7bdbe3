import asyncio, sys
async def test_a(settings, service):
    from jobs.worker import work
    stopping = asyncio.Event()
    t = asyncio.create_task(work(settings, stopping))
    await asyncio.sleep(1)
    stopping.set()
    await asyncio.wait([t], timeout=6)
    if not t.done():
        for x in asyncio.all_tasks():
            x.print_stack(file=sys.stderr)
    assert t.done()
    t.result()
