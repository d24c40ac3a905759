"""Where frames come from. One interface for files (three decoders) and for a model that is running.

source.py    FrameSource, ClipInfo, Frame and its views, ClipError
sizes.py     the size a frame is scaled to
samplers.py  which frames a metric looks at
official.py pyav.py opencv.py lossless.py    the back ends; opening.py chooses one
"""
