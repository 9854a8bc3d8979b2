import gc

import hypothesis

# Collections every 700 objects are a tenth of the time of the scenarios.
gc.set_threshold(50_000, 20, 20)

# How long an example takes says nothing on a machine that is busy with others.
hypothesis.settings.register_profile("trio_feed", deadline=None)
hypothesis.settings.load_profile("trio_feed")
