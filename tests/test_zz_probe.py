def test_x(tiny_run):
    import json
    print((tiny_run.model/"model.json").read_text()[:3000])
    print((tiny_run.folder/"mids.json").read_text())
    print(sorted(p.name for p in tiny_run.folder.iterdir()))
    print((tiny_run.folder/"mined-mine.jsonl").read_text()[:1500])
    b=[r.box for r in tiny_run.stages.rows]; print(sum(x is not None for x in b), len(b))
    for n in("tune","val","mine"): print(n,[r.label.value for r in tiny_run.stages.part(n)])
