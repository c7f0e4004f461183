"""report placeholder"""
def write_report(runs, path): pass
