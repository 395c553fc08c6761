from evoquant.report.reliability import reliability_tables


def test_one_table_a_topic_with_every_figure():
    rows = [
        {"file": "test_a", "topic": "kills", "what": "at random times", "tried": 1200, "held": 1200, "seconds": 61.25},
        {"file": "test_b", "topic": "disk", "what": "full", "tried": 3, "held": 2, "bytes_lost": 0, "where": "store"},
        {"file": "test_b", "topic": "kills", "what": "twice", "tried": 4, "held": 4},
    ]
    kills, disk = reliability_tables(rows)
    assert (kills.title, disk.title) == ("Kills", "Disk")
    text = kills.to_markdown()
    assert "| at random times | 1,200 | 1,200 | seconds 61.2 |" in text
    assert "| twice | 4 | 4 |  |" in text
    assert "| full | 3 | 2 (not all) | bytes lost 0; where store |" in disk.to_markdown()
