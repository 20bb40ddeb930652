"""The benchmarks: each module here is one. It bears its name, says in its docstring what it measures, and has

async def run(options: Options) -> Report
"""
